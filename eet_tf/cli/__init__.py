"""The command line: one module for each command, from flags to calls of the library."""
