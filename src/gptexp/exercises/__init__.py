"""The exercises of the notebooks: true answers, typical mistakes, and what a learner reads about each."""
