"""What each stage does, one file per stage; knows the ports, not the services."""
