"""Ask an app that runs elsewhere: python examples/ask_the_app.py http://127.0.0.1:7860 "coffee cup" """

import sys

from gradio_client import Client

address, phrase = sys.argv[1:]
client = Client(address, verbose=False)
picture, relevancy, answer = client.predict(
    scene=0, view="test_000", phrase=phrase, negatives="", level="auto", threshold=0.4, api_name="/query"
)
print(f"{answer['confidence']} sure, at {answer['point']}, {answer['pixels']} pixels; drawn in {picture}")
