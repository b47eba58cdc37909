/* Sends the time each second while somebody listens: `lcroute listen GROUP` shows it. */
#include <librecast.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

int main(void)
{
	char text[40];
	int64_t channel = librecast_channel_open("example.org/time", NULL, 0, LIBRECAST_WATCH);

	if (librecast_channel_group(channel, text, sizeof text) == 0)
		fprintf(stderr, "%s\n", text);
	while (librecast_listened(channel, -1) == 1) {
		int length = snprintf(text, sizeof text, "%lld\n", (long long)time(NULL));
		if (librecast_send(channel, text, length) < 0)
			break;
		fputs(text, stdout), fflush(stdout);
		sleep(1);
	}
	fprintf(stderr, "%s\n", librecast_message());
	return 1;
}
