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
  /^(@bull-board\/(api|hono)|@hono\/node-server|bullmq|commander|hono|ioredis|pino|prom-client|uuid|fast-check|zod)(\/|$)/;

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

/**
 * Jest follows each test through everything asynchronous, to know whose an error is that nobody caught. On Node 20 that costs
 * a tenth of the CPU. Without it such an error fails the file instead of the test.
 */
class NoStorage {
  run(_store, work) {
    return work();
  }
  getStore() {}
}

module.exports = class extends Runtime {
  constructor(config, environment, resolver, ...rest) {
    const isCoreModule = (name) => FROM_NODE.test(name) || resolver.isCoreModule(name);
    super(config, environment, Object.create(resolver, { isCoreModule: { value: isCoreModule } }), ...rest);
    acceptBoth(environment.global);
    // Jest keeps 100 lines of each stack, and looks all of them up in source maps when a stream fails.
    environment.global.Error.stackTraceLimit = 10;
    const core = this.coreModule.require.bind(this.coreModule);
    this.coreModule.require = (name) => {
      if (this.loadsJest && name === 'node:async_hooks') return { AsyncLocalStorage: NoStorage };
      return FROM_NODE.test(name) ? require(name) : core(name);
    };
  }

  requireInternalModule(...request) {
    this.loadsJest = true;
    try {
      return super.requireInternalModule(...request);
    } finally {
      this.loadsJest = false;
    }
  }
};
