"""The five reference systems. Each is found by its entry point, and nothing else imports one."""
