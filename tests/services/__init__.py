"""Real neighbours for the tests, each started in one folder and stopped again."""
