"""The cache that all services share: memory, Redis behind it, single flight, metrics.

`Cache` is one tier of values; `Flights` shares streams in flight; `Remote` is the
process's Redis; `CacheSettings` its settings; `key_of` makes keys.
"""

from quintet_servicekit.cache.errors import AwayError
from quintet_servicekit.cache.flights import Flights
from quintet_servicekit.cache.keys import key_of
from quintet_servicekit.cache.models import CacheStats, Codec, Computed, Found
from quintet_servicekit.cache.remote import Remote, open_remote
from quintet_servicekit.cache.settings import CacheSettings
from quintet_servicekit.cache.tier import Cache

__all__ = [
    "AwayError",
    "Cache",
    "CacheSettings",
    "CacheStats",
    "Codec",
    "Computed",
    "Flights",
    "Found",
    "Remote",
    "key_of",
    "open_remote",
]
