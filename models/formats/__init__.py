"""Reading and writing other people's files by name, each format in its own file; nothing in a file is executed."""
