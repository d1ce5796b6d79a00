/**
 * Jest's runtime, which takes the packages that nearly all tests need from Node, once for each worker of Jest. Jest itself
 * loads them anew for each test file: two thirds of what most test files load.
 */
const { types } = require('node:util');
const { setFlagsFromString } = require('node:v8');
const { default: Runtime } = require('jest-runtime');

// Most code of a test runs a few times only: V8 optimizes what is hot, and no longer what is lukewarm. A seventh of the CPU.
setFlagsFromString('--interrupt-budget=10000000');

/** None of them reads the environment, which each test file has for itself (axios does), or is looked for by its path. */
const FROM_NODE =
  /^(@bull-board\/(api|hono)|@hono\/node-server|bullmq|hono|ioredis|pino|prom-client|uuid|zod)(\/|$)/;

/** A test file has built-in classes of its own; an instance of either kind counts as one of both, as without Jest. */
const KINDS = {
  Date: types.isDate,
  Error: types.isNativeError,
  Map: types.isMap,
  Promise: types.isPromise,
  RegExp: types.isRegExp,
  Set: types.isSet,
};
function acceptBoth(realm) {
  const ordinary = realm.Function.prototype[Symbol.hasInstance];
  for (const [name, is] of Object.entries(KINDS)) {
    const kind = realm[name];
    Object.defineProperty(kind, Symbol.hasInstance, {
      configurable: true,
      value(value) {
        return ordinary.call(this, value) || (this === kind && is(value));
      },
    });
  }
}
acceptBoth(globalThis);

module.exports = class extends Runtime {
  constructor(config, environment, resolver, ...rest) {
    const isCoreModule = (name) => FROM_NODE.test(name) || resolver.isCoreModule(name);
    super(config, environment, Object.create(resolver, { isCoreModule: { value: isCoreModule } }), ...rest);
    acceptBoth(environment.global);
    const core = this.coreModule.require.bind(this.coreModule);
    this.coreModule.require = (name) => (FROM_NODE.test(name) ? require(name) : core(name));
  }
};
