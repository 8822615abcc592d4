"""Readers of foreign formats that hold labelled images."""
