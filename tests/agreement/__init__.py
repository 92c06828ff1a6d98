"""Random clusters on the real kernel: every packet's fate compared with the verdict of the calculation.

    PYTHONPATH=tests python -m agreement --worlds 500
"""
