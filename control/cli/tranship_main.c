// SPDX-License-Identifier: MIT
/* tranship: the command line; see cli.c. */
#include <unistd.h>

#include "control/cli/cli.h"

int main(int argc, char **argv)
{
	struct cli cli = { .out = stdout,
			   .err = stderr,
			   .terminal = isatty(STDERR_FILENO),
			   .reconnect_ms = CLI_RECONNECT_MS };

	return (int)cli_run(&cli, argc, argv);
}
