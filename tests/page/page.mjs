// Tests of the live page in Chromium.
//
//   PEERS=FOLDER node tests/page/page.mjs                      run the tests
//   PEERS=FOLDER node tests/page/page.mjs --screenshots DIR    make screenshots of the page
//
// FOLDER has the node_modules of `tests/install.sh`. PROXBOX_BRIDGE_BINARY is the bridge, and CHROMIUM the browser.

import { after, before, describe } from "node:test";

import { testAccessibility } from "./accessibility.mjs";
import { close, launch } from "./browser.mjs";
import { testConnection } from "./connection.mjs";
import { testLooks } from "./looks.mjs";
import { testObjects } from "./objects.mjs";
import { testPrefix } from "./prefix.mjs";
import { takeScreenshots } from "./screenshots.mjs";
import { testSyncs } from "./syncs.mjs";
import { testTrust } from "./trust.mjs";

if (process.argv[2] === "--screenshots") await takeScreenshots(process.argv[3]);
else runTests();

function runTests() {
  // Most of the time they wait.
  describe("the live page", { concurrency: 4 }, () => {
    before(launch);
    after(close);
    testSyncs();
    testObjects();
    testTrust();
    testConnection();
    testPrefix();
    testLooks();
    testAccessibility();
  });
}
