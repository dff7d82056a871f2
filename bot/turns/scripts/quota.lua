-- What people and servers use in a day, and what their open turns have reserved.

-- All direct messages of a platform without servers there count as one server.
local function server_of(thread)
  return string.match(thread, '^[^:]*:?[^:]*')
end

-- The day, and the milliseconds until the next one.
local function today()
  local now = now_ms()
  return math.floor(now / DAY_MS), DAY_MS - now % DAY_MS
end

-- Includes the use of a person who was forgotten since; see `hide_spent`.
local function spent_on(day, who, field)
  local date, salt = string.format('%.0f', day), redis.call('GET', key('spent', 'salt'))
  local hidden = salt and redis.call('HGET', key('spent', date, redis.sha1hex(salt .. who)), field)
  return natural(redis.call('HGET', key('spent', date, who), field)) + natural(hidden or 0)
end

local function add_spent(day, who, questions, tokens)
  local name = key('spent', string.format('%.0f', day), who)
  -- A correction after its day must not restore the count without an expiry.
  if questions + tokens < 0 and redis.call('EXISTS', name) == 0 then return end
  for field, more in pairs({questions = questions, tokens = tokens}) do
    local sum = math.max(natural(redis.call('HGET', name, field)) + more, 0)
    redis.call('HSET', name, field, string.format('%.0f', sum))
  end
  redis.call('PEXPIRE', name, SPENT_MS)
end

-- Refuses more than a person's quota: 'used KIND MILLISECONDS', until it renews; '' if there is room. `quota`
-- has a number for each limit. A single question may need more tokens than a quota has: the first one
-- of a day is accepted if anything is left.
local function quota_refusal(person, thread, quota, questions, tokens)
  local day, left = today()
  local function refuses(who, field, more, limit)
    limit = tonumber(limit)
    if not limit or more <= 0 then return false end
    local used = spent_on(day, who, field)
    local is_first = used == 0 and limit > 0 and field ~= 'questions'
    return used + more > limit and not is_first
  end
  local server = server_of(thread)
  local what = refuses(person, 'questions', questions, quota.questions) and 'questions'
    or refuses(person, 'tokens', tokens, quota.tokens) and 'tokens'
    or refuses(server, 'tokens', tokens, quota.server_tokens) and 'server'
  return what and string.format('used %s %.0f', what, left) or ''
end

-- Counts a call of a tool by a person. If they have made `limit` today, it is refused as by `quota_refusal`.
local function count_call(person, limit)
  local day, left = today()
  if spent_on(day, person, 'calls') >= tonumber(limit) then return string.format('used tools %.0f', left) end
  local name = key('spent', string.format('%.0f', day), person)
  redis.call('HINCRBY', name, 'calls', 1)
  redis.call('PEXPIRE', name, SPENT_MS)
  return ''
end

local function reserved_by(id)
  local day, questions, tokens = string.match(get(id, 'reserved') or '', '^(%d+) (%d+) (%d+)$')
  return tonumber(day), natural(questions), natural(tokens)
end

-- Adds to what a turn has reserved. All of it counts on the day of the first.
local function reserve(id, person, thread, questions, tokens)
  local day, before, tokens_before = reserved_by(id)
  day = day or today()
  local all = string.format('%.0f %.0f %.0f', day, before + questions, tokens_before + tokens)
  set(id, 'reserved', all)
  add_spent(day, person, questions, tokens)
  add_spent(day, server_of(thread), questions, tokens)
end

-- Replaces the reservation of a turn by its use. A turn that does not count costs its person nothing.
-- Without a number of tokens, the reservation stays. A second call changes nothing.
local function settle(id, turn, counts, tokens)
  local day, questions, reserved = reserved_by(id)
  unset(id, 'reserved')
  if not day or not turn.thread then return end
  local used = tonumber(tokens) and natural(tokens) or counts and reserved or 0
  add_spent(day, turn.person, counts and 0 or -questions, (counts and used or 0) - reserved)
  add_spent(day, server_of(turn.thread), counts and 0 or -questions, used - reserved)
end

-- Returns what a person, and all people of the server of a thread, have used today: {questions, tokens, tokens of the
-- server, ms until the next day, calls of tools}.
function verbs.usage(person, thread)
  local day, left = today()
  local server, calls = spent_on(day, server_of(thread), 'tokens'), spent_on(day, person, 'calls')
  return {spent_on(day, person, 'questions'), spent_on(day, person, 'tokens'), server, left, calls}
end
