-- The token with which a thread was taken.

-- Whether a token is pending, for the given worker if there is one.
local function is_pending(platform, entry, ...)
  return #redis.pcall('XPENDING', key('tokens', platform), GROUP, entry, entry, 1, ...) > 0
end

local function drop_ticket(platform, entry)
  redis.pcall('XACK', key('tokens', platform), GROUP, entry)
  redis.pcall('XDEL', key('tokens', platform), entry)
  redis.call('HDEL', key('claimed', platform), entry)
end

local function release(id, turn)
  drop_ticket(platform_of(turn.thread), turn.entry)
  redis.call('SREM', key('running', turn.person), id)
end
