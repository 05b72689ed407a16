"""One file a command, which joins the rooms and holds no mechanism of its own. Imports all rooms;
no room imports it.
"""
