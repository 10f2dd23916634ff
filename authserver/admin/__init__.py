"""What an operator runs beside the server: commands that open configuration and storage.

No network surface. Must not be imported by anything but the command lines.
"""
