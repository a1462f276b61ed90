"""Looks at what a job has made, from outside: nothing here changes a release."""
