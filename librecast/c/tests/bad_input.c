/* Each wrong call is an error with a message, without a network and without a program for streams. */
#include <librecast.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EXPECT(call, error) expect(#call, call, error)

static void expect(const char *call, int64_t result, int64_t error)
{
	if (result != error || (error < 0 && !*librecast_message())) {
		fprintf(stderr, "%s: %lld, not %lld: %s\n", call, (long long)result, (long long)error, librecast_message());
		exit(1);
	}
}

static void *other_thread(void *nothing)
{
	/* the error of another thread is not this one's */
	if (*librecast_message())
		exit(3);
	EXPECT(librecast_close(7), LIBRECAST_CLOSED);
	return nothing;
}

int main(void)
{
	char name[10001], text[8];
	pthread_t thread;

	memset(name, 'x', sizeof name - 1);
	name[sizeof name - 1] = 0;
	if (*librecast_message() || !*librecast_version())
		return 2;
	EXPECT(librecast_channel_open(NULL, NULL, 0, 0), LIBRECAST_BAD_ARGUMENT);
	EXPECT(librecast_channel_open("", NULL, 0, 0), LIBRECAST_BAD_ARGUMENT);
	EXPECT(librecast_channel_open(name, NULL, 0, 0), LIBRECAST_BAD_ARGUMENT);
	EXPECT(librecast_channel_open(name + 10000 - 256, NULL, 0, 0), LIBRECAST_BAD_ARGUMENT);
	EXPECT(librecast_channel_open("fe80::1", NULL, 0, 0), LIBRECAST_BAD_ARGUMENT);
	EXPECT(librecast_channel_open("\xff", NULL, 0, 0), LIBRECAST_BAD_ARGUMENT);
	EXPECT(librecast_channel_open("x", NULL, 0, 64), LIBRECAST_BAD_ARGUMENT);
	EXPECT(librecast_channel_open("x", "nowhere0", 0, 0), LIBRECAST_NO_NETWORK);
	EXPECT(librecast_channel_open("x", name, 0, 0), LIBRECAST_BAD_ARGUMENT);
	EXPECT(librecast_connect("beta", "no-protocol"), LIBRECAST_BAD_ARGUMENT);
	EXPECT(librecast_connect(name, "/x/1"), LIBRECAST_BAD_ARGUMENT);
	/* no daemon */
	EXPECT(librecast_connect("beta", "/x/1"), LIBRECAST_NO_NETWORK);
	EXPECT(librecast_listen("/x/1", "*", 0), LIBRECAST_NO_NETWORK);
	/* an error in place of a handle stays the same, with its message */
	EXPECT(librecast_write(librecast_connect("beta", "/x/1"), "x", 1), LIBRECAST_NO_NETWORK);
	if (!strstr(librecast_message(), "lcroute"))
		return 4;
	/* handles that nobody has */
	EXPECT(librecast_send(0, "x", 1), LIBRECAST_CLOSED);
	EXPECT(librecast_receive(77, text, sizeof text, -1, NULL), LIBRECAST_CLOSED);
	EXPECT(librecast_listened(77, -1), LIBRECAST_CLOSED);
	EXPECT(librecast_accept(77, -1), LIBRECAST_CLOSED);
	EXPECT(librecast_peer(77, text, sizeof text), LIBRECAST_CLOSED);
	EXPECT(librecast_read(77, text, sizeof text, -1), LIBRECAST_CLOSED);
	EXPECT(librecast_finish(INT64_MAX), LIBRECAST_CLOSED);
	EXPECT(librecast_descriptor(77), LIBRECAST_CLOSED);
	EXPECT(librecast_close(77), LIBRECAST_CLOSED);
	if (pthread_create(&thread, NULL, other_thread, NULL) || pthread_join(thread, NULL))
		return 5;
	puts("all");
	return 0;
}
