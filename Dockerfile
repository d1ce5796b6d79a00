# Builds with everything, ships with what runs. Node is process 1's child of nobody: it gets SIGTERM itself.
FROM node:24-bookworm-slim AS build
WORKDIR /app
COPY package.json package-lock.json .npmrc tsconfig.json ./
COPY src ./src
COPY workers ./workers
RUN npm ci && npm prune --omit=dev --ignore-scripts

FROM node:24-bookworm-slim
ENV NODE_ENV=production
WORKDIR /app
COPY --from=build /app/package.json ./
COPY --from=build /app/node_modules ./node_modules
COPY --from=build /app/dist ./dist
RUN mkdir /archive && chown node /archive
USER node
VOLUME /archive
ENTRYPOINT ["node", "dist/src/cli.js"]
CMD ["worker"]
