"""The studio: a local page on which a designer drops two pictures and moves a slider.

It computes nothing itself: `blend/designs/session.py` draws and measures. `studio.py` holds the state, `server.py` the
routes, `jobs.py` long work, `latest_only_queue.py` short work, `shelf.py` the designs that are kept.
"""
