/* Looks up each argument with the C library's resolver and prints its addresses, or its error. */
#include <arpa/inet.h>
#include <netdb.h>
#include <stdio.h>
#include <sys/socket.h>

int main(int count, char **names)
{
	for (int i = 1; i < count; i++) {
		struct addrinfo wanted = { .ai_socktype = SOCK_STREAM }, *found = 0;
		int error = getaddrinfo(names[i], "443", &wanted, &found);
		printf("%s:", names[i]);
		if (error)
			printf(" %s", gai_strerror(error));
		for (struct addrinfo *one = found; one; one = one->ai_next) {
			char host[INET6_ADDRSTRLEN];
			if (!getnameinfo(one->ai_addr, one->ai_addrlen, host, sizeof host, 0, 0, NI_NUMERICHOST))
				printf(" %s", host);
		}
		printf("\n");
		if (found)
			freeaddrinfo(found);
	}
	return 0;
}
