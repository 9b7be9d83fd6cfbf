#pragma once
#include <curl/curl.h>

// Swift can't call variadic functions: one of these for each kind of argument that curl_easy_setopt(3) and
// curl_easy_getinfo(3) take.

/* CURLOPT_MAIL_RCPT_ALLOWFAILS, since curl 7.69; its name was another one before 8.2. */
static inline CURLcode ccurl_allow_refused_recipients(CURL *handle) {
  return curl_easy_setopt(handle, (CURLoption)(CURLOPTTYPE_LONG + 290), 1L);
}

static inline CURLcode ccurl_set_long(CURL *handle, CURLoption option, long value) {
  return curl_easy_setopt(handle, option, value);
}

static inline CURLcode ccurl_set_offset(CURL *handle, CURLoption option, curl_off_t value) {
  return curl_easy_setopt(handle, option, value);
}

static inline CURLcode ccurl_set_text(CURL *handle, CURLoption option, const char *value) {
  return curl_easy_setopt(handle, option, value);
}

static inline CURLcode ccurl_set_pointer(CURL *handle, CURLoption option, const void *value) {
  return curl_easy_setopt(handle, option, value);
}

// Called with what has come; returns how much of it was taken, and anything less ends the transfer.
typedef size_t (*ccurl_take)(char *bytes, size_t size, size_t count, void *context);

static inline CURLcode ccurl_set_take(CURL *handle, CURLoption option, ccurl_take function) {
  return curl_easy_setopt(handle, option, function);
}

// Called about once a second and whenever something moves; anything but 0 ends the transfer.
typedef int (*ccurl_watch)(void *context, curl_off_t wanted, curl_off_t got, curl_off_t to_send, curl_off_t sent);

static inline CURLcode ccurl_set_watch(CURL *handle, ccurl_watch function) {
  return curl_easy_setopt(handle, CURLOPT_XFERINFOFUNCTION, function);
}

static inline CURLcode ccurl_get_long(CURL *handle, CURLINFO info, long *value) {
  return curl_easy_getinfo(handle, info, value);
}
