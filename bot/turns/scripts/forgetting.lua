-- Forgets a person or a server: the job, and the keys of the store.
--
-- Until its end the job has
--   forgetting           sorted set of the jobs, by the time (ms) at which a worker continues them
--   of:<platform>:<id>   set of the threads in which a person has spoken

-- A worker that has been silent for so long (ms) has died.
local STEP_MS = 10000
local KEEPS_NAME = {turn = true, history = true, open = true, running = true, mailbox = true, throttled = true,
  live = true, of = true}

-- The name of a place may be the beginning of a question, and a persona may be the person's.
local function forget_place(id)
  return redis.call('HDEL', key('turn', id), 'where', 'preferences')
end

-- Returns how much was removed, and 1 if something has to end first.
local function forget_turn(id, it)
  local turn, name = record(id), key('turn', id)
  if turn.state == 'dropped' and not turn.thread then
    return names_it(id, it) and redis.call('DEL', name) or 0, 0
  end
  local is_own = is_key_of(it.kind == 'server' and turn.thread or turn.person, it)
  if is_own then return 1, erase_turn(id, it) and 0 or 1 end
  if it.kind == 'server' or not turn.thread or platform_of(turn.thread) ~= it.platform then return 0, 0 end
  local context, found = redis.call('HGET', name, 'context') or '', 0
  local without = without_person(context, it)
  if without ~= context then
    redis.call('HSET', name, 'context', without)
    -- Its worker has them, and saves its exchange while the job is there.
    if is_open(turn) then redis.call('HSET', name, 'unsaid', '1') end
    note_thread(turn.thread, it)
    found = 1
  end
  if redis.call('SISMEMBER', key('of', it.platform, it.written), turn.thread) == 1 then
    found = found + forget_place(id)
  end
  local waits = is_open(turn) and redis.call('HEXISTS', name, 'unsaid') == 1
  return found, waits and 1 or 0
end

-- What a person has used today still counts, under a name that is anonymous once the day's salt is gone.
local function hide_spent(day, who)
  local name = key('spent', day, who)
  local salt = redis.call('GET', key('spent', 'salt'))
  local hidden = key('spent', day, redis.sha1hex(salt .. who))
  for _, field in ipairs({'questions', 'tokens'}) do
    local sum = natural(redis.call('HGET', hidden, field)) + natural(redis.call('HGET', name, field))
    redis.call('HSET', hidden, field, string.format('%.0f', sum))
  end
  redis.call('PEXPIRE', hidden, SPENT_MS)
  return redis.call('DEL', name)
end

local function drop_members(name, members, verb, is_gone)
  local found = 0
  for _, member in ipairs(members) do
    if is_gone(member) then found = found + redis.call(verb, name, member) end
  end
  return found
end

-- Keys that are named after a person, such as `kept:<person>`.
local function of_person()
  return {
    kept = function(name) return redis.call('DEL', name) end,
    warned = function(name) return redis.call('DEL', name) end,
    open = function(name, person, it)
      local waits = 0
      for _, id in ipairs(redis.call('SMEMBERS', name)) do
        if not is_open(record(id)) then
          redis.call('SREM', name, id)
        elseif not erase_turn(id, it) then
          waits = waits + 1
        end
      end
      return 0, waits
    end,
    running = function(name) return 0, count_turns(name) > 0 and 1 or 0 end,
    throttled = function(_, person)
      while redis.call('ZCARD', key('throttled', person)) > 0 do wake_throttled(person) end
      return 1
    end,
  }
end

-- Keys that are named after a thread.
local function of_thread()
  return {
    history = function(_, thread, it) return forget_in_history(thread, it) end,
    names = function(name, _, it) return it.kind == 'person' and redis.call('HDEL', name, it.id) or 0 end,
    -- Somebody else may have begun the thread.
    preferences = function(name, thread, it)
      if redis.call('HGET', name, 'persona_by') ~= '"' .. it.json .. '"' then return 0 end
      redis.call('HDEL', name, 'persona', 'persona_by')
      if redis.call('HLEN', name) == 0 then forget_choices(thread) end
      return 1
    end,
    speakers = function(name, _, it) return it.kind == 'person' and redis.call('SREM', name, it.written) or 0 end,
    live = function(name, thread, it)
      if not names_it(thread, it) then return 0 end
      note_thread(thread, it)
      local entries = redis.call('XRANGE', name, '-', '+')
      if #entries == 1 and entries[1][2][3] == 'gone' then return 0 end
      redis.call('XTRIM', name, 'MAXLEN', 0)
      -- Open pages show that it is gone. The last step drops this, too.
      redis.call('XADD', name, '*', 'look', '1', 'gone', '1')
      redis.call('EXPIRE', name, 60)
      return 1
    end,
  }
end

local function mentions(json, it)
  return it.kind == 'person' and string.find(json, '"id": "' .. it.json .. '"', 1, true) ~= nil
end

-- Other kinds, by their content.
local function of_value()
  return {
    message = function(name, it)
      local gone = mentions(redis.call('GET', name) or '', it)
      return gone and redis.call('DEL', name) or 0
    end,
    posted = function(name, it)
      local thread = redis.call('GET', name) or ''
      local gone = names_it(thread, it) or it.kind == 'server' and is_within(thread, it.server)
      return gone and redis.call('DEL', name) or 0
    end,
    pressed = function(name, it)
      return names_it(redis.call('GET', name) or '', it) and redis.call('DEL', name) or 0
    end,
    heard = function(name, it)
      return drop_members(name, redis.call('SMEMBERS', name), 'SREM', function(one) return names_it(one, it) end)
    end,
    of = function(name, it)
      if it.kind == 'person' then return 0 end
      local threads = redis.call('SMEMBERS', name)
      return drop_members(name, threads, 'SREM', function(one) return is_within(one, it.server) end)
    end,
    kept = function(name, it)
      local all = redis.call('LRANGE', name, 0, -1)
      local found = 0
      for _, one in ipairs(all) do
        if names_it(string.match(one, ' (.*)$') or '', it) then found = found + redis.call('LREM', name, 0, one) end
      end
      return found
    end,
  }
end

-- Returns how much a key had, and 1 if something has to end first.
local function forget_key(name, it)
  local kind, rest = string.match(name, '^([^:]*):?(.*)$')
  local full = prefix .. name
  local at_person, at_thread, at_value = of_person()[kind], of_thread()[kind], of_value()[kind]
  if name == 'preferences' then
    local members = redis.call('SMEMBERS', full)
    return drop_members(full, members, 'SREM', function(place) return names_it(place, it) end), 0
  elseif name == 'marks' then
    local members = redis.call('ZRANGE', full, 0, -1)
    return drop_members(full, members, 'ZREM', function(id) return names_it(id, it) end), 0
  elseif kind == 'turn' then
    return forget_turn(rest, it)
  elseif kind == 'spent' then
    local day, who = string.match(rest, '^(%d+):(.*)$')
    if it.kind == 'server' then return day and is_within(who, it.server) and redis.call('DEL', full) or 0, 0 end
    return day and is_key_of(who, it) and hide_spent(day, who) or 0, 0
  elseif at_person and is_key_of(rest, it) then
    local found, waits = at_person(full, rest, it)
    return found, waits or 0
  elseif at_thread and (it.kind == 'server' or platform_of(rest) == it.platform) then
    if it.kind == 'person' or kind == 'history' and is_within(rest, it.server) then
      local found = at_thread(full, rest, it)
      -- Threads of their own contain nothing else.
      if names_it(rest, it) and not KEEPS_NAME[kind] then found = found + redis.call('DEL', full) end
      return found, 0
    end
  end
  local is_budget = kind == 'budget' and it.kind == 'server'
    and string.find(name .. ':', ':' .. it.written .. ':', 1, true)
  if names_it(name, it) and (it.kind == 'server' and kind ~= 'mailbox' or not KEEPS_NAME[kind]) or is_budget then
    return redis.call('DEL', full), 0
  end
  return at_value and at_value(full, it) or 0, 0
end

-- Says for a while that somebody was forgotten, under a name that is anonymous once the day's salt is gone.
local function forgotten_key(who)
  return key('forgotten', redis.sha1hex((redis.call('GET', key('spent', 'salt')) or '') .. who))
end

-- `salt` are random letters. Called again, it changes nothing.
function verbs.begin_forgetting(who, salt)
  -- As long as a count of today.
  redis.call('SET', key('spent', 'salt'), salt, 'NX', 'PX', SPENT_MS)
  local pause = math.max(redis.call('PTTL', forgotten_key(who)), 0)
  redis.call('ZADD', prefix .. 'forgetting', 'NX', now_ms() + pause, who)
  return 1
end

function verbs.is_forgetting(who)
  return redis.call('ZSCORE', prefix .. 'forgetting', who)
end

-- Returns the next job; false if there is none.
function verbs.claim_forgetting()
  local due = redis.call('ZRANGEBYSCORE', prefix .. 'forgetting', '-inf', now_ms(), 'LIMIT', 0, 1)[1]
  if due then redis.call('ZADD', prefix .. 'forgetting', now_ms() + STEP_MS, due) end
  return due or false
end

-- Another worker continues the job after so many ms without progress.
function verbs.put_off_forgetting(who, duration)
  return redis.call('ZADD', prefix .. 'forgetting', 'XX', 'CH', now_ms() + duration, who)
end

-- Forgets the data of the next keys. Returns {the next cursor, how much was removed, how much has to end first}.
function verbs.forget_some(who, cursor)
  local it, total, waiting = parsed(who), 0, 0
  verbs.put_off_forgetting(who, STEP_MS)
  local step = redis.call('SCAN', cursor, 'MATCH', prefix .. '*', 'COUNT', STEP_KEYS)
  for _, name in ipairs(step[2]) do
    local found, waits = forget_key(string.sub(name, #prefix + 1), it)
    total, waiting = total + (tonumber(found) or 0), waiting + waits
  end
  return {step[1], total, waiting}
end

-- Only the job is left. Notes of a page about a refused question are dropped now. The next job of the same person
-- begins after `pause` ms.
function verbs.end_forgetting(who, pause)
  local it = parsed(who)
  redis.call('SET', forgotten_key(who), '1', 'PX', math.max(tonumber(pause), 1))
  if it.kind == 'person' then
    if it.platform == 'web' then
      for _, talk in ipairs(redis.call('ZRANGE', prefix .. 'web:talks:' .. it.id, 0, -1)) do
        redis.call('DEL', prefix .. 'web:turns:web::' .. it.written .. ':' .. talk)
      end
      redis.call('DEL', prefix .. 'web:talks:' .. it.id, prefix .. 'web:titles:' .. it.id)
    end
    for _, thread in ipairs(redis.call('SMEMBERS', key('of', it.platform, it.written))) do
      if names_it(thread, it) then redis.call('DEL', key('live', thread)) end
    end
    redis.call('DEL', key('of', it.platform, it.written))
  end
  return redis.call('ZREM', prefix .. 'forgetting', who)
end
