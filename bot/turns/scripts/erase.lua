-- Forgets a person or a server: their turns and exchanges.
--
-- A forgotten person or server is written `person:<platform>:<id>` or `server:<platform>:<workspace>`, the last part as in a
-- thread. Each step may be repeated, so the next worker begins again. Meanwhile the person is refused, and removed from
-- all that is saved: so finished keys stay clean.

-- Keys of one step.
local STEP_KEYS = 100

-- Part of the names of threads that belong to one person.
local function own_threads(platform, id)
  -- Those of `/ask` end so: `ask-<id>`, `private-<channel>-<id>`.
  if platform == 'discord' then return {'-' .. id .. ':'} end
  if platform == 'web' then return {':web::' .. id .. ':', ':web:' .. id .. ':'} end
  if platform == 'console' then return {':console:local:' .. id .. ':'} end
  return {}
end

local function parsed(who)
  local kind, platform, written = string.match(who, '^(%a+):([^:]*):(.*)$')
  local parts = {':' .. platform .. ':' .. written .. ':'}
  if kind == 'person' then parts = own_threads(platform, written) end
  return {
    who = who, kind = kind, platform = platform, written = written, id = unquoted(written), json = in_json(written),
    server = platform .. ':' .. written,
    parts = parts,
  }
end

local function is_within(text, server)
  return text == server or string.sub(text, 1, #server + 1) == server .. ':'
end

-- Whether a name belongs to a thread of their own, or to the server.
local function names_it(text, it)
  for _, part in ipairs(it.parts) do
    if string.find(':' .. text .. ':', part, 1, true) then return true end
  end
  return false
end

local function is_key_of(person, it)
  if it.kind == 'server' then return is_within(person, it.server) end
  return platform_of(person) == it.platform and id_of(person) == it.written
end

-- The preferences of a thread are dropped with the person who began it.
local function forget_choices(thread)
  redis.call('DEL', key('preferences', thread))
  redis.call('SREM', prefix .. 'preferences', thread)
end

local function note_thread(thread, it)
  if it.kind == 'person' then note_of(it.platform, it.written, thread) end
end

local function is_alone_in(thread, it)
  local others = redis.call('SCARD', key('speakers', thread))
    - redis.call('SISMEMBER', key('speakers', thread), it.written)
  return others == 0 and redis.call('LLEN', key('history', thread)) == 0
end

-- The id stays known, so that the message is neither answered nor read again.
local function drop_known(id, it)
  redis.call('DEL', key('turn', id), key('heard', id), key('answered', id))
  if not names_it(id, it) then mark_dropped(id, ARGV[2]) end
end

-- False if a turn has to end, or its reply to be repaired, before it can be dropped.
local function erase_turn(id, it)
  local turn = record(id)
  if is_open(turn) then
    verbs.forget('', '', 1, id)
    turn = record(id)
    if is_open(turn) then return false end
  end
  drop_from_contexts(id)
  local thread = turn.thread
  if thread then
    local repair = redis.call('ZSCORE', key('repairs', platform_of(thread)), id)
    -- No repair will run.
    local is_left = repair and tonumber(repair) < now_ms() - LATE_ADMISSION_MS
    if repair and not is_left then
      redis.call('HSETNX', key('turn', id), 'forget', '1')
      drop_question(id)
      return false
    end
    redis.call('ZREM', key('repairs', platform_of(thread)), id)
    for _, message in ipairs(ids_in(redis.call('HGET', key('turn', id), 'message_ids'))) do
      redis.call('DEL', key('posted', platform_of(thread), message))
    end
    redis.call('ZREM', key('turns', thread), id)
    note_thread(thread, it)
    if redis.call('GET', key('newest', thread)) == id then redis.call('DEL', key('newest', thread)) end
    if redis.call('GET', key('told', thread)) == id then redis.call('SET', key('told', thread), '-', 'KEEPTTL') end
    if is_alone_in(thread, it) then forget_choices(thread) end
  end
  close(id, turn.person)
  drop_known(id, it)
  return true
end

-- The rating of a person is taken from the end of an exchange; see `verbs.rate`.
local function without_rating(line, id)
  local behind = string.find(line, ', "ratings": {', 1, true)
  local ratings = behind and decoded(line).ratings
  if type(ratings) ~= 'table' or ratings[id] == nil then return line end
  ratings[id] = nil
  local rest = next(ratings) and ', "ratings": ' .. cjson.encode(ratings) or ''
  return string.sub(line, 1, behind - 1) .. rest .. '}'
end

local function without_person(json, it)
  local without, removed = without_words(json, it.json)
  for _, message in ipairs(removed) do
    if not record(message).thread then drop_known(message, it) end
  end
  return without
end

-- Returns how much was removed.
local function forget_in_history(thread, it)
  local history, own, found = key('history', thread), {}, 0
  if it.kind == 'server' then return redis.call('DEL', history) end
  for at, line in ipairs(redis.call('LRANGE', history, 0, -1)) do
    if string.find(line, '"' .. it.json .. '"', 1, true) then
      local person = decoded(line).person
      if type(person) == 'table' and person.id == it.id then
        -- The first asker has begun the thread.
        if at == 1 then forget_choices(thread) end
        table.insert(own, line)
      else
        local without = without_rating(without_person(line, it), it.id)
        if without ~= line then
          redis.call('LSET', history, at - 1, without)
          note_thread(thread, it)
          found = found + 1
        end
      end
    end
  end
  if #own > 0 then
    note_thread(thread, it)
    note_seen(thread)
  end
  for _, line in ipairs(own) do
    local id = turn_of(line)
    if redis.call('EXISTS', key('turn', id)) == 0 then drop_known(id, it) end
    redis.call('LREM', history, 1, line)
  end
  return found + #own
end

-- Forgets the known data of a person at once.
function verbs.forget_known(who)
  local it, found = parsed(who), 0
  for _, thread in ipairs(redis.call('SRANDMEMBER', key('of', it.platform, it.written), STEP_KEYS)) do
    for _, line in ipairs(redis.call('LRANGE', key('history', thread), 0, -1)) do
      local id = turn_of(line)
      if is_key_of(record(id).person, it) then erase_turn(id, it) end
    end
    found = found + forget_in_history(thread, it)
  end
  return found
end
