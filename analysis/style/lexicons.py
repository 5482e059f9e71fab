"""Phrases that mark a manner of writing, in lower case with straight apostrophes. English only.

A phrase is found if its words stand in this order; "*_OPENERS" count only at the beginning of a response.
"""

HEDGES = (
    "maybe", "perhaps", "possibly", "probably", "presumably", "apparently", "arguably", "seemingly", "somewhat",
    "might",
    "could be", "may be", "it's possible", "it is possible", "it seems", "seems to", "seem to", "appears to",
    "appear to", "tends to", "tend to", "likely", "unlikely", "generally", "usually", "typically", "in general",
    "often", "sometimes", "in some cases", "in most cases", "to some extent", "more or less", "kind of", "sort of",
    "i think", "i believe", "i guess", "i suppose", "in my opinion", "not sure", "as far as i know", "roughly",
    "approximately", "it depends",
)  # fmt: skip
BOOSTERS = (
    "very", "really", "extremely", "absolutely", "definitely", "certainly", "clearly", "obviously", "undoubtedly",
    "completely", "totally", "entirely", "truly", "highly", "incredibly", "remarkably", "utterly", "always", "never",
    "of course", "without a doubt", "no doubt", "in fact", "indeed", "must", "crucial", "essential", "by far",
    "the most", "the best",
)  # fmt: skip
APOLOGIES = (
    "sorry", "i apologize", "i apologise", "my apologies", "apologies for", "forgive me", "pardon me", "i regret",
)  # fmt: skip
REFUSALS = (
    "i can't", "i cannot", "i can not", "i won't", "i will not be able", "i'm unable", "i am unable",
    "unable to assist",
    "can't help with", "cannot help with", "can't assist", "cannot assist", "not able to help", "not able to provide",
    "i must decline", "i have to decline", "i'm not comfortable", "i am not comfortable", "not appropriate for me",
    "against my guidelines",
)  # fmt: skip
FLATTERING_OPENERS = (
    "great question", "good question", "excellent question", "that's a great", "that is a great", "that's a good",
    "what a great", "what a good", "what a wonderful", "certainly", "absolutely", "of course", "sure", "great",
    "awesome",
    "wonderful", "i'd be happy to", "i would be happy to", "i'd be glad to", "happy to help", "thank you for",
    "thanks for asking", "you're right", "you are right", "you're absolutely right",
)  # fmt: skip
CLOSING_OFFERS = (
    "let me know if", "please let me know", "feel free to ask", "feel free to reach out", "don't hesitate to",
    "do not hesitate to", "i hope this helps", "hope this helps", "hope that helps", "if you have any questions",
    "if you have any other questions", "if you have any more questions", "if you need any", "if you need more",
    "if you need further", "if you'd like me to", "would you like me to", "is there anything else",
    "happy to help with",
)  # fmt: skip
SELF_REFERENCES = (
    "as an ai", "i'm an ai", "i am an ai", "i'm just an ai", "ai language model", "ai assistant", "as a language model",
    "large language model", "my training data", "my knowledge cutoff", "i was trained", "i don't have feelings",
    "i don't have personal", "i do not have personal", "i don't have access to", "i do not have access to",
)  # fmt: skip


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


FIRST_PERSON = _set("i i'm i'd i've i'll me my mine myself we we're we've we'd we'll us our ours ourselves")
SECOND_PERSON = _set("you you're you've you'd you'll your yours yourself yourselves")
FUNCTION_WORDS = tuple(
    sorted(
        _set(
            "a an the this that these those some any no every each either neither both all many much more most "
            "few less least several such own same other another i me my mine myself we us our ours ourselves you "
            "your yours yourself he him his himself she her hers herself it its itself they them their theirs "
            "themselves who whom whose which what and or but nor so yet for because although though while if "
            "unless until since as than whether when where why how about above across after against along among "
            "around at before behind below beneath beside between beyond by down during except from in inside "
            "into like near of off on onto out outside over past through to toward under up upon with within "
            "without am is are was were be been being have has had having do does did doing will would shall "
            "should can could may might must not don't doesn't didn't can't isn't wasn't won't there here then "
            "now just only very too also even still again ever never"
        )
    )
)
