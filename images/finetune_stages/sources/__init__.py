"""What the stage programs share about the things that they read: where things come from (URIs, the hub), where they wait (cache, work
folder), and rows of JSON.
"""
