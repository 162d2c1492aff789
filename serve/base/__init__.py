"""What every part of Serve needs: its controller and the news of it, and what is said of a user's errors.

Imports no other room. A process of Serve finds the controller (`connection`) and listens to what it publishes
(`topics`, `news`); `request_context` is what a replica's code may ask about its surroundings.
"""
