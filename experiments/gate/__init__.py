"""The gate before a deployment: facts are collected, items judge them, and an exit code says what they come to.

Items (items.py) are pure functions over Facts (facts.py); what touches the world stands in collect/.
"""
