# Builds with everything, ships with what runs. Node is process 1, and gets SIGTERM itself: reelhaul stops in order.
#   docker build -t reelhaul .
FROM node:26-trixie-slim AS build
WORKDIR /app
COPY package.json package-lock.json .npmrc ./
RUN npm ci --ignore-scripts
COPY tsconfig.json ./
COPY scripts ./scripts
COPY src ./src
COPY workers ./workers
RUN npm run build

FROM node:26-trixie-slim AS dependencies
WORKDIR /app
COPY package.json package-lock.json .npmrc ./
COPY scripts ./scripts
# The image serves every set-up: packages that are optional for an app are part of it.
RUN node scripts/with-optional-packages.mjs && npm ci --omit=dev --ignore-scripts

FROM node:26-trixie-slim
ENV NODE_ENV=production \
    STORAGE_URL=file:/archive \
    WORKER_PORT=9100
WORKDIR /app
COPY --from=dependencies /app/node_modules ./node_modules
COPY --from=build /app/dist ./dist
COPY package.json LICENSE ./
RUN mkdir /archive && chown node:node /archive
USER node
VOLUME /archive
EXPOSE 3000 9100
# Of a server on PORT, of a worker on WORKER_PORT: whichever this container runs. It asks whether a restart would help.
HEALTHCHECK --interval=15s --timeout=5s --start-period=30s --retries=3 \
  CMD ["node", "-e", "Promise.any([process.env.PORT || 3000, process.env.WORKER_PORT].map(async (port) => { const { ok } = await fetch(`http://127.0.0.1:${port}/healthz`); if (!ok) throw new Error(port); })).catch(() => process.exit(1))"]
ENTRYPOINT ["node", "dist/src/cli/main.js"]
CMD ["worker"]
