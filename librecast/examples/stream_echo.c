/* Says a line to a program on another node, and prints what it answers: stream_echo NODE PROTOCOL LINE. */
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	struct sockaddr_un at = {.sun_family = AF_UNIX, .sun_path = "/run/lcroute/streams.sock"};
	char text[4096];
	ssize_t n;
	int s = socket(AF_UNIX, SOCK_STREAM, 0);

	if (argc == 5) /* another socket than the host's */
		snprintf(at.sun_path, sizeof at.sun_path, "%s", argv[4]);
	if (argc < 4 || connect(s, (struct sockaddr *)&at, sizeof at)) {
		perror("stream_echo NODE PROTOCOL LINE");
		return 1;
	}
	dprintf(s, "{\"cmd\":\"connect\",\"node\":\"%s\",\"protocols\":[\"%s\"]}\n", argv[1], argv[2]);
	/* byte by byte up to the end of the line: what follows is the stream */
	for (n = 0; n < (ssize_t)sizeof text - 1 && read(s, text + n, 1) == 1 && text[n] != '\n'; n++)
		;
	text[n] = 0;
	if (strncmp(text, "{\"ok\":", 6)) {
		fprintf(stderr, "%s\n", text);
		return 1;
	}
	dprintf(s, "%s\n", argv[3]);
	shutdown(s, SHUT_WR);
	while ((n = read(s, text, sizeof text)) > 0)
		fwrite(text, 1, n, stdout);
	return 0;
}
