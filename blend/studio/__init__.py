"""The studio: a page on this machine on which somebody drops two pictures and moves a slider.

It holds no mathematics: `blend/workshop.py` draws and measures. `studio` is what is open, `server` the page, `jobs`
what takes long, `drawing` what must not, `shelf` and `uploads` what is kept, `command` starts it.
"""
