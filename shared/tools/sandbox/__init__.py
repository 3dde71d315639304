"""Where tools that somebody else wrote run: without our files, network, processes or secrets."""
