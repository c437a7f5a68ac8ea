# The program with the Vulkan loader and Mesa's drivers (AMD, Intel, and lavapipe, which computes on the CPU).
#
#   docker run --rm ghcr.io/oaif/oaif doctor                                              # on the CPU
#   docker run --rm --gpus all ghcr.io/oaif/oaif doctor                                   # NVIDIA, with its container toolkit
#   docker run --rm --device /dev/dri --group-add "$(stat -c %g /dev/dri/renderD128)" ghcr.io/oaif/oaif doctor   # AMD, Intel
#
# Files of the host: -v "$PWD:/work" --user "$(id -u):$(id -g)". Downloads are kept by -v "$HOME/.cache/huggingface:/cache".
#
# The binaries are those of the release archives, as image/oaif-amd64 and image/oaif-arm64, with their THIRD-PARTY-LICENSES.txt: nothing
# is compiled here.
FROM debian:trixie-slim

# NVIDIA's driver comes from the host. It needs libXext and libEGL, also without a screen.
RUN apt-get update \
    && apt-get install -y --no-install-recommends libegl1 libvulkan1 libxext6 mesa-vulkan-drivers \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 1000 --create-home --shell /usr/sbin/nologin oaif \
    && mkdir /work /cache \
    && chown oaif:oaif /work /cache \
    && chmod 1777 /home/oaif /cache

ARG TARGETARCH
COPY --chmod=755 image/oaif-${TARGETARCH} /usr/local/bin/oaif
COPY LICENSE-APACHE LICENSE-MIT image/THIRD-PARTY-LICENSES.txt /usr/share/doc/oaif/

# HOME is named because --user with a number has none. Mesa's drivers complain without XDG_RUNTIME_DIR.
ENV HOME=/home/oaif \
    HF_HOME=/cache \
    NVIDIA_DRIVER_CAPABILITIES=all \
    XDG_RUNTIME_DIR=/tmp
USER oaif
WORKDIR /work
ENTRYPOINT ["oaif"]
CMD ["--help"]

ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="oaif" \
    org.opencontainers.image.description="Online AI feedback (OAIF) alignment of small language models on any GPU" \
    org.opencontainers.image.source="https://github.com/oaif/oaif" \
    org.opencontainers.image.licenses="MIT OR Apache-2.0" \
    org.opencontainers.image.version="$VERSION" \
    org.opencontainers.image.revision="$REVISION"
