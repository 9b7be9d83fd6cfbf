#pragma once
// Nothing is called from Swift: the library is loaded into a server, and attacks in its constructor.
