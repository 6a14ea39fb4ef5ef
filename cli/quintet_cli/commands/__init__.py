"""What each command does, one module a command group; `quintet_cli.app` calls them."""
