"""Search in one's own photographs (tools/search.py): an index that follows a folder, queries by image, a web page.

manifest.py    what an index stores of its photographs   scan.py         what is in the folder
update.py      building and updating an index            watch.py        following the folder
summary.py     what an update did                        segments.py     the descriptors of an index
extraction.py  how images are described                  delg.py         the TensorFlow processes of DELG models
query.py       search and reranking                      ranking.py      the reranking method and its scores
second_look.py unsure results compared by SIFT           why.py          the details that two images share
service.py     answers to queries                        report.py       results as text, JSON and HTML
dates.py       when photographs were taken               listing.py      filters and orders of the page's list
kept.py        uploads and descriptors of queries        app.py          what the web page answers
server.py      where the page listens, and for whom      access.py       the token of those who may look
deadline.py    answers that take too long                page/           the page itself and that of results
shell.py       a query of the command line               python.py       rrt.PhotoIndex
duplicates.py  near-duplicates                           duplicates_report.py, duplicates_view.py  how they are shown
measure.py     precision on labelled images
"""
