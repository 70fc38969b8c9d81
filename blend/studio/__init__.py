"""The studio: a page on this machine on which somebody drops two pictures and moves a slider.

It holds no mathematics: `blend/designs/session.py` draws and measures. `studio` is what is open, `server` the page,
`jobs` what takes long, `latest_only_queue` what must not, `shelf` and `uploads` what is kept, `command` starts it.
"""
