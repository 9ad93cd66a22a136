# Crashes, to leave a core file with everything in it.
# severity: low
# escape: artefact
# dies: 139
# as: none a plain process of this host leaves no core file either, unless its administrator said so
import ctypes

ctypes.string_at(8)
