-- A worker takes the turn that is next.

-- Bytes of the records of turns that are answered together: about as many as one question may have.
local JOINED_BYTES = 64000
-- Further threads wait for the next call.
local DUE_AT_ONCE = 100

-- The text of earlier attempts answers a question that was edited meanwhile. It stays until there is text
-- of the new answer. Text without a message was never visible.
local function begin_anew(id)
  local name, removed = key('turn', id), removed_messages(id)
  local known = redis.call('HMGET', name, 'message_ids', 'shown')
  if known[1] and known[1] ~= '[]' and known[2] and known[2] ~= '' then
    redis.call('HSETNX', name, 'previous_answer', known[2])
  end
  redis.call('HSET', name, 'attempts', 0, 'shown', '')
  local used = decoded(redis.call('HGET', name, 'more') or '').used
  redis.call('HDEL', name, 'edited_since_take', 'max_progress', 'more')
  redis.call('HINCRBY', name, 'restarts', 1)
  local more = {used = tonumber(used), removed = #removed > 0 and removed or nil}
  if next(more) then redis.call('HSET', name, 'more', cjson.encode(more)) end
end

-- A person's turn runs beyond the limit if another person waits behind it in the thread.
local function may_run(id, turn, limit)
  local person, running = turn.person, key('running', turn.person)
  if redis.call('SISMEMBER', running, id) == 1 then return true end
  if redis.call('SCARD', running) < tonumber(limit) then return true end
  return count_turns(running) < tonumber(limit) or keeps_others_waiting(turn.thread, person)
end

-- The last message of the thread's newest reply; '' if there is none.
local function last_above(thread)
  local newest = redis.call('GET', key('newest', thread))
  return type(newest) == 'string' and last_of(redis.call('HGET', key('turn', newest), 'message_ids')) or ''
end

-- The turns of the same person that wait directly behind a turn are answered with it, if they may be.
local function join_followers(id, turn)
  if redis.call('HGET', key('turn', id), 'joins') ~= '1' then return end
  local ids, size = {}, size_of(id)
  for _, one in ipairs(redis.call('LRANGE', key('mailbox', turn.thread), 1, -1)) do
    local known = redis.call('HMGET', key('turn', one), 'person', 'fence', 'joins', 'state')
    size = size + size_of(one)
    local waits = known[2] == '0' and known[3] == '1' and known[4] == 'queued'
    if known[1] ~= turn.person or not waits or size > JOINED_BYTES then break end
    redis.call('HSET', key('turn', one), 'lead', id)
    table.insert(ids, one)
  end
  if #ids > 0 then redis.call('HSET', key('turn', id), 'joined', cjson.encode(ids)) end
end

-- If others wait behind a turn when it is taken, people see several questions before the first answer. Then
-- each of these answers refers to its question.
local function note_several(id, thread)
  local waiting = waiting_behind(id, thread)
  if #waiting == 0 then return end
  for _, one in ipairs({id, unpack(waiting)}) do add_to_place(one, {refers = true}) end
end

-- In the order in which they were asked, which for some platforms is not that of admission. Empty if the turn
-- is answered alone.
local function joined_questions(id)
  local asked, texts = {}, {}
  for at, one in ipairs({id, unpack(joined_to(id))}) do
    local asked_at, text = unpack(redis.call('HMGET', key('turn', one), 'asked_at', 'text'))
    if text and text ~= '' then table.insert(asked, {tonumber(asked_at), at, text}) end
  end
  table.sort(asked, function(one, other)
    return one[1] < other[1] or one[1] == other[1] and one[2] < other[2]
  end)
  for _, one in ipairs(asked) do table.insert(texts, one[3]) end
  return #texts > 1 and cjson.encode(texts) or '[]'
end

local function make_due_ready(platform)
  local due = redis.call('ZRANGEBYSCORE', key('due', platform), '-inf', now_ms(), 'LIMIT', 0, DUE_AT_ONCE)
  for _, thread in ipairs(due) do make_ready(thread) end
end

-- The next thread that may be taken, with its first turn and that one's record; nothing if there is none.
local function next_to_take(platform, person_limit)
  while true do
    local thread = redis.call('ZPOPMIN', key('ready', platform))[1]
    if not thread then break end
    local id, turn = first_of(thread)
    if id and may_run(id, turn, person_limit) then return thread, id, turn end
    if id then
      redis.call('ZADD', key('throttled', turn.person), position_of(thread), thread)
      keep(key('throttled', turn.person))
    end
  end
  redis.call('DEL', key('wake', platform))
end

-- The milliseconds until the next thread is due.
local function next_due(platform)
  local at = redis.call('ZRANGE', key('due', platform), 0, 0, 'WITHSCORES')[2]
  return at and at - now_ms() or DAY_MS
end

-- The record of a turn that a worker has taken, and what follows from others: names and values.
local function for_worker(id)
  local found = redis.call('HGETALL', key('turn', id))
  for name, value in pairs({id = id, questions = joined_questions(id), waited_ms = open_for(id)}) do
    table.insert(found, name)
    table.insert(found, value)
  end
  return found
end

local function lease_to(worker, thread, id, turn, lease)
  local name = key('turn', id)
  make_due(thread, lease)
  redis.call('SADD', key('running', turn.person), id)
  keep(key('running', turn.person))
  if redis.call('HEXISTS', name, 'edited_since_take') == 1 then begin_anew(id) end
  redis.call('HSET', name, 'state', 'running', 'worker', worker)
  local fence = redis.call('HINCRBY', name, 'fence', 1)
  redis.call('HINCRBY', name, 'attempts', 1)
  if fence == 1 then
    redis.call('HSET', name, 'above', last_above(thread))
    join_followers(id, turn)
    note_several(id, thread)
  end
end

-- Takes a turn of the first platform that has one, for `lease` ms. With a `holds_due` of '1', threads that are due
-- stay where they are. Returns {thread, what `for_worker` does}, or in how many ms the next thread is due.
function verbs.take(worker, lease, person_limit, holds_due, ...)
  local wait = DAY_MS
  for _, platform in ipairs({...}) do
    if holds_due == '' then make_due_ready(platform) end
    local thread, id, turn = next_to_take(platform, person_limit)
    if thread then
      lease_to(worker, thread, id, turn, lease)
      return {thread, for_worker(id)}
    end
    wait = math.min(wait, next_due(platform))
  end
  return math.max(wait, 0)
end
