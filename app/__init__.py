"""The command line and, later, the app: the only place that talks to a person."""
