"""What is known of pictures, as tables and files that other tools open.

Imports what lies below; nothing but the command line and the top of the package imports this.
"""
