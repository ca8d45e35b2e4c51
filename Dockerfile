# The relay as a container:
#
#   docker build -t aimessage-server .
#   docker run -d -p 8080:8080 -e LOG_FORMAT=json aimessage-server
#   docker run -d -p 8080:8080 --read-only --cap-drop ALL -v aimessage:/data aimessage-server     what to run for real
#
# Every setting of `aimessage-server --help` can be given with -e. What these steps make was run without an engine, in a
# bare root file system: .venv/bin/python tests/endurance/image_steps.py. The base image is pinned by its release, not by a
# digest: whoever builds for production should pin the digest that they have verified.

FROM python:3.13-slim-bookworm AS build
WORKDIR /build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
COPY requirements/build.txt requirements/runtime.txt requirements/
RUN python3 -m venv /opt/build && /opt/build/bin/pip install --require-hashes -r requirements/build.txt
RUN python3 -m venv /opt/aimessage && /opt/aimessage/bin/pip install --require-hashes -r requirements/runtime.txt
COPY pyproject.toml README.md LICENSE ./
COPY src src
RUN /opt/build/bin/python -m hatchling build -t wheel -d /build/dist
RUN /opt/aimessage/bin/pip install --no-deps /build/dist/*.whl && /opt/aimessage/bin/pip uninstall -y pip

FROM python:3.13-slim-bookworm
RUN useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin aimessage
RUN install -d -o 10001 -g 10001 -m 0700 /data
COPY --from=build /opt/aimessage /opt/aimessage
ENV PATH=/opt/aimessage/bin:/usr/local/bin:/usr/bin:/bin HOST_ADDRESS=0.0.0.0 PORT=8080 DB_PATH=/data/store PYTHONDONTWRITEBYTECODE=1
USER 10001:10001
VOLUME /data
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s --retries=3 CMD ["aimessage-server", "probe"]
ENTRYPOINT ["aimessage-server"]
