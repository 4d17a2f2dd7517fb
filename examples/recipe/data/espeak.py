"""espeak-ng, the speech synthesiser, from the library that the package `espeakng-loader` carries."""

import ctypes

import numpy as np

from recipe.errors import RecipeError

# of espeak-ng's speak_lib.h
AUDIO_OUTPUT_SYNCHRONOUS = 2
INITIALIZE_DONT_EXIT = 0x8000  # an error is returned, rather than ending the process
CHARS_UTF8 = 1
PARAMETERS = {"rate": 1, "volume": 2, "pitch": 3, "pitch_range": 4}
SYNTH_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)

LONGEST_PATH = 140  # espeak-ng keeps the path of its data, and of a file there, in 160 bytes
INSTALL = "pip install espeakng-loader"


class Espeak:
    """The synthesiser: one for a process, since the C library keeps its state in global variables.

    That state (the phase of the voice's source) also outlives a call: two equal calls in one process differ. The
    same sequence of calls in a fresh process gives the same samples.
    """

    def __init__(self) -> None:
        try:
            import espeakng_loader
        except ImportError:
            raise RecipeError(f"espeakng-loader, which speaks the demo corpus, is not installed; {INSTALL}") from None
        try:
            self._library = ctypes.CDLL(espeakng_loader.get_library_path())
        except OSError as error:
            raise RecipeError(f"espeak-ng cannot be loaded ({error}); {INSTALL} --force-reinstall") from None
        data = espeakng_loader.get_data_path()
        self.sample_rate: int = self._library.espeak_Initialize(
            AUDIO_OUTPUT_SYNCHRONOUS, 0, str(data).encode(), INITIALIZE_DONT_EXIT
        )
        if self.sample_rate <= 0:
            if len(str(data)) > LONGEST_PATH:
                remedy = f"a path of over {LONGEST_PATH} characters; make the virtual environment in a shorter one"
            else:
                remedy = f"{INSTALL} --force-reinstall"
            raise RecipeError(f"espeak-ng does not start from its data in {data}: {remedy}")
        self._blocks: list[np.ndarray] = []
        self._callback = SYNTH_CALLBACK(self._receive)  # kept here, or it would be freed while C still calls it
        self._library.espeak_SetSynthCallback(self._callback)

    def speak(self, text: str, voice: str, *, rate: int, pitch: int, pitch_range: int, volume: int) -> np.ndarray:
        """Speak `text`: (samples,), int16, mono, at `sample_rate`.

        Args:
            voice: A language and a variant of its voice, as in "en-us+m3".
            rate: Words per minute, 80 to 450.
            pitch: 0 to 99, 50 being the voice's own.
            pitch_range: 0 (a monotone) to 99.
            volume: 0 to 200, 100 being the voice's own.
        """
        if self._library.espeak_SetVoiceByName(voice.encode()) != 0:
            raise RecipeError(f"espeak-ng has no voice {voice}; {INSTALL} --upgrade")
        # after the voice, which resets them
        for name, value in {"rate": rate, "pitch": pitch, "pitch_range": pitch_range, "volume": volume}.items():
            self._library.espeak_SetParameter(PARAMETERS[name], value, 0)
        self._blocks.clear()
        encoded = text.encode() + b"\0"
        status = self._library.espeak_Synth(encoded, ctypes.c_size_t(len(encoded)), 0, 1, 0, CHARS_UTF8, None, None)
        if status != 0 or not self._blocks:
            raise RecipeError(f"espeak-ng cannot speak {text!r} (status {status}); {INSTALL} --force-reinstall")
        return np.concatenate(self._blocks)

    def _receive(self, samples: "ctypes._Pointer[ctypes.c_short]", count: int, _events: int) -> int:
        if samples and count > 0:  # a null pointer tells the end
            self._blocks.append(np.ctypeslib.as_array(samples, (count,)).copy())
        return 0  # go on
