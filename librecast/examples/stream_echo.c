/* Says a line to a program on another node, and prints what it answers: stream_echo NODE PROTOCOL LINE. */
#include <librecast.h>
#include <stdio.h>
#include <string.h>

int main(int argc, char **argv)
{
	char text[4096];
	int64_t stream, n;

	if (argc != 4) {
		fprintf(stderr, "stream_echo NODE PROTOCOL LINE\n");
		return 2;
	}
	stream = librecast_connect(argv[1], argv[2]);
	if (librecast_write(stream, argv[3], strlen(argv[3])) < 0 || librecast_write(stream, "\n", 1) < 0 ||
	    librecast_finish(stream) < 0) {
		fprintf(stderr, "%s\n", librecast_message());
		return 1;
	}
	while ((n = librecast_read(stream, text, sizeof text, -1)) > 0)
		fwrite(text, 1, n, stdout);
	return n < 0;
}
