"""The dashboard and the alerts, run by a real Prometheus against the processes of the demo.

`python -m tests.monitoring` (`make alerts`) looks at every panel under load, causes what each alert
is for, and draws the dashboard. `test_*` is the fast part: promtool on the rules as they are.
"""
