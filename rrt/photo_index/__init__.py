"""Search in one's own photographs (tools/search.py): an index that follows a folder, queries by image, a web page.

manifest.py    what an index knows of its photographs    scan.py        what is in the folder
update.py      building and updating an index            extraction.py  the TensorFlow processes that describe images
segments.py    the descriptors of an index               query.py       search and reranking
service.py     answers to queries                        report.py      results as text, JSON and HTML
dates.py       when photographs were taken               listing.py     filters and orders of the page's list
kept.py        uploads and descriptors of queries        why.py         the details that two images share
app.py         what the web page answers                 server.py      where it listens, and to whom
access.py      the token of those who may look           deadline.py    answers that take too long
summary.py     what an update did                        shell.py       a query of the command line
watch.py       following the folder
duplicates.py  near-duplicates                duplicates_report.py, duplicates_view.py  how they are told
page/          the page itself and that of results       measure.py     precision on labelled images
"""
