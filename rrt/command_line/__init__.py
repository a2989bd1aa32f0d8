"""How a command is called and recorded."""
