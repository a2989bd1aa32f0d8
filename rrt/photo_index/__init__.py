"""Search in one's own photographs (tools/search.py): an index that follows a folder, queries by image, a local web
page.

manifest.py     what an index knows of its photographs      scan.py        what is in the folder
update.py       building and updating an index              extraction.py  the TensorFlow processes that describe
images segments.py     the descriptors of an index                 query.py       search and reranking
report.py       results as text, JSON and HTML              measure.py     precision on labelled images
server.py, web.py, engine.py, page/                         the local web page
"""
