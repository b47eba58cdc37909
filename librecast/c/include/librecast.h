/*
 * Channels, joins of listeners, and streams on a Librecast network: docs/guide/library.md.
 *
 * Compile with `pkg-config --cflags --libs librecast-c`.
 *
 * Each function that returns int64_t returns a handle, a number of bytes or 0; or, below 0, one of the errors. A handle is
 * a number, and no other handle of the process ever has it again: a closed or invented one is an error, and no crash. A
 * call with an error in place of its handle returns this error, and its message stays: a program may look once, at the end.
 *
 * All functions may be called from several threads, also with one handle. Strings are UTF-8 and end with a zero byte. A
 * timeout is in milliseconds; below 0 it never ends, 0 does not wait.
 */
#ifndef LIBRECAST_C_H
#define LIBRECAST_C_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum librecast_error {
	LIBRECAST_BAD_ARGUMENT = -1,  /* a null pointer, a bad name, a datagram of no bytes */
	LIBRECAST_CLOSED = -2,        /* not an open handle of this kind */
	LIBRECAST_TIMEOUT = -3,       /* nothing came in time */
	LIBRECAST_NO_NETWORK = -4,    /* no such interface, or no program for streams */
	LIBRECAST_NOT_PERMITTED = -5, /* a permission is missing here, or the other node refuses */
	LIBRECAST_UNREACHABLE = -6,   /* the node is unknown or away, or its program is */
	LIBRECAST_TOO_LONG = -7,      /* the buffer is too short, or the datagram too long */
	LIBRECAST_ENDED = -8,         /* the other side has broken off */
	LIBRECAST_INTERRUPTED = -9,   /* a signal ended the wait: call again */
	LIBRECAST_SYSTEM = -10,       /* the system refuses: see the message */
	LIBRECAST_FAULT = -11         /* a fault of the library, which goes on */
};

enum librecast_flag {
	LIBRECAST_RECEIVE = 1, /* a channel joins its group */
	LIBRECAST_WATCH = 2,   /* a channel watches joins of others; needs CAP_NET_RAW */
	LIBRECAST_OUTSIDE = 4  /* keys among the allowed may call from outside of this host's networks */
};

/* The last error of this thread in words, for people. Valid until the thread's next error. Never null. */
const char *librecast_message(void);

/* The version of the library, such as "0.1.0". */
const char *librecast_version(void);

/*
 * Opens the channel of a name, of a key (12D3KooW...) or of a group (ff1e::42). All that open the same one meet there. The
 * name proves nothing: each member of the network may send. interface: NULL is lc0; port: 0 is 14244, as lcroute's own.
 */
int64_t librecast_channel_open(const char *name, const char *interface, uint16_t port, uint32_t flags);

/* Writes the address of the channel's group, at most 40 bytes with the zero. */
int64_t librecast_channel_group(int64_t channel, char *text, size_t length);

/* Sends one datagram to the channel. */
int64_t librecast_send(int64_t channel, const void *data, size_t length);

/*
 * Waits for a datagram; returns its length. source: NULL, or 46 bytes for the sender's address. A datagram that is longer
 * than the buffer is lost (LIBRECAST_TOO_LONG).
 */
int64_t librecast_receive(int64_t channel, void *data, size_t length, int32_t timeout, char *source);

/* Waits until another program listens to the channel: 1. 0: nobody does when the time is over. */
int64_t librecast_listened(int64_t channel, int32_t timeout);

/* Opens a stream to a program on a node: by the node's name, its key (KEY or KEY@SERVER) or its address. */
int64_t librecast_connect(const char *node, const char *protocol);

/*
 * Serves a protocol such as "/echo/1" until the handle is closed. allow: names, keys and label:KEY=VALUE of nodes that may
 * call, with commas; "*" is each member of the network.
 */
int64_t librecast_listen(const char *protocol, const char *allow, uint32_t flags);

/* Waits for the next stream of a protocol that is served here; returns its handle. */
int64_t librecast_accept(int64_t listener, int32_t timeout);

/* Writes the name of the node at the other end. */
int64_t librecast_peer(int64_t stream, char *text, size_t length);

/* Waits for bytes; returns how many came. 0: the other side has sent all. */
int64_t librecast_read(int64_t stream, void *data, size_t length, int32_t timeout);

/* Writes all of the bytes; waits while the other side does not read. */
int64_t librecast_write(int64_t stream, const void *data, size_t length);

/* Ends writing; reading continues. */
int64_t librecast_finish(int64_t stream);

/*
 * Returns a new descriptor for poll(2) and the like: readable while a datagram, a stream or bytes wait. The caller closes
 * it, and nothing that it does to it ends the handle. Of a stream, it may also be read and written; it does not block.
 */
int64_t librecast_descriptor(int64_t handle);

/* Closes any handle. Threads that wait with it return. */
int64_t librecast_close(int64_t handle);

#ifdef __cplusplus
}
#endif

#endif
