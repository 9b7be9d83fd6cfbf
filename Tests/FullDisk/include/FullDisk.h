#pragma once
// Nothing is called from Swift: the library is preloaded into the server under test.
